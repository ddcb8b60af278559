"""The PixelRNN, of which Row LSTM and Diagonal BiLSTM are two systems."""
