"""Baselines beside the models: gradient-boosted trees, logistic regression, popularity, constant.

Names here are loaded on first use; LightGBM and scikit-learn are optional extras of the package
and are imported when a baseline that needs them is fitted.
"""
