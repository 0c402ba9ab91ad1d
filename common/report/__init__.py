"""What the reports of both stages share: page, figure style, camera images."""
