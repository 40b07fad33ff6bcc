"""LeRobot datasets, read: the layout of their files, and the frames in them."""

from libra_edge.data.lerobot.dataset import Dataset, EpisodeInfo

__all__ = ["Dataset", "EpisodeInfo"]
