"""One thing to try, and what is predicted of it."""

import math
from dataclasses import dataclass

from spectrain.spectral_maps import SpectralMap


@dataclass(frozen=True)
class Candidate:
    """One map stopped after `steps` steps of size 1/g_max, and its predicted mean squared error on unseen points.

    standard_error is that of the prediction; confidence is the share of resamples in which the candidate's error is
    within 5 % of the best one's. leave_one_out and gcv are the closed forms of the same error, noise included, GCV also
    being the eigenlearning prediction with tr H for the sum of learnabilities (`closed_form_errors`). same_as is the
    (map, steps) of the candidate that is predicted to be the same predictor, if there is one.
    """

    spectral_map: SpectralMap
    steps: int
    predicted_error: float
    standard_error: float
    confidence: float
    leave_one_out: float = math.nan
    gcv: float = math.nan
    same_as: tuple[SpectralMap, int] | None = None
