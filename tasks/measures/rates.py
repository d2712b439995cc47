"""Rates with exact intervals, p-values from controls, and the share of a list that is expected to be false."""

import numpy as np
from scipy.stats import beta, binom, false_discovery_control, hypergeom
