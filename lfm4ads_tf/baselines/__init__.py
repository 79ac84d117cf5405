"""Baselines beside the models: gradient-boosted trees, logistic regression, popularity, constant.

LightGBM and scikit-learn are optional extras of the package and are imported when a baseline that
needs them is fitted.
"""
