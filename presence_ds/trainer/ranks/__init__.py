"""The processes of a run together: agreement, signals, logs, health, failures and what they leave."""
