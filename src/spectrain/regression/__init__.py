"""Modified Spectrum Kernels for unseen points, and kernel regression with them."""

from spectrain.regression.estimator import KernelRegression
from spectrain.regression.modified_kernel import ModifiedSpectrumKernel
from spectrain.regression.ridge_path import RidgePath, ridge_path

__all__ = ["KernelRegression", "ModifiedSpectrumKernel", "RidgePath", "ridge_path"]
