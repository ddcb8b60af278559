"""The verbs of the command `pixelcnn`: a module each, `arguments(parser)` and `run(args)`, listed in pixelcnn.cli.

A verb reads its operands (pixelcnn.commands.operands), calls one room of the package and writes what that returns.
"""
