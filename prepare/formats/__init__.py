"""The camera's file formats."""
