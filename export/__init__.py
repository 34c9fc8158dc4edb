"""The workstation side: a frozen ViT with a small adapter becomes an ONNX bundle."""
