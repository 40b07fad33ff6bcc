"""Training Libra-VLA: windows of demonstrations, losses, dynamic curriculum, trainer."""
