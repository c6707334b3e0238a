"""What one optimiser step is made of besides the model: batches, optimisers, schedules, the guard of the step, saves and resumes."""
