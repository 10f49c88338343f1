"""Speed and error, side by side with the reference algorithms: ratios, not seconds."""
