"""Why attacks work, or do not: mutual information and covariance by depth."""
