"""PixelRNN of Diagonal BiLSTM layers (van den Oord et al. 2016, arXiv:1601.06759, section 3.2)."""
