"""The embedded default: simulated runs in the camera's real file format."""
