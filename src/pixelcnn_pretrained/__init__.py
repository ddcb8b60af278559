"""The models that come with pixelcnn, a folder each. Apart from its code, which MLflow copies into every version."""
