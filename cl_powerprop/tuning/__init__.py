"""`cl-powerprop tune`: search for the settings that reach most on validation data. Optuna proposes, runs measure."""
