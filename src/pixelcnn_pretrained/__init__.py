"""The bundled models, a folder each; not in the package pixelcnn, whose code MLflow copies into every version."""
