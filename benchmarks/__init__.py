"""Side by side with named peers: ratios, measured in one run, alternating, medians. Never a timed test."""
