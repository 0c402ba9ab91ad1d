"""A trained network applied to shots."""
