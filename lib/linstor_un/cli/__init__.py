"""`linstor-un`, the operators' command: one module for each verb, and nothing that an action loads."""
