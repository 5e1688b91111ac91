"""What a visitor finds on the panel: one file per tab. They hold no algorithm."""
