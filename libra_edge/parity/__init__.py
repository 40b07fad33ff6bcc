"""What every stage is judged by: samples, metrics, gates, golden vectors."""
