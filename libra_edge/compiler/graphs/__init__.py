"""The policy as graphs: split in modules, exported to ONNX, the denoising steps fused in one."""
