"""What the reports of both stages share: the page, how figures look, how a shot is shown."""
