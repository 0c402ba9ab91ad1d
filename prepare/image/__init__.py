"""What is done to an image: functions of arrays."""
