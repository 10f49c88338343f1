"""Speed and error compared with the reference algorithms: ratios, not seconds."""
