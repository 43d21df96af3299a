"""Unit tests draw figures without a window."""

import matplotlib

matplotlib.use("Agg")
