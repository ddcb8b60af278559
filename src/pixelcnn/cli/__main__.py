"""`python -m pixelcnn.cli`: the command `pixelcnn`."""

from pixelcnn.cli import main

main()
