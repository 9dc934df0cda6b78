"""Video: files, cameras and network streams through a segmenter, and overlays as a video file. Needs PyAV (extra `video`)."""
