"""Vision-language models and picture encoders that others have trained, as parts of Libra-VLA."""
