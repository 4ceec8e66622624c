"""Training. Nothing is re-exported: import from the files.

- `loop.py`: the training loop: epochs, validation, early stopping
- `step.py`: one optimisation step, its metrics and receipts
- `objective.py`: losses, class weights, terms of the attention
- `optimisation.py`: optimizer, learning-rate schedule, annealing, weight averaging (EMA)
- `build.py`: the model of a run, from what its images are like
- `checkpoint.py`: state to resume from, best model
- `run_folder.py`: RUN: settings, environment, metrics.jsonl
- `attention_log.py`: maps of watched images, TensorBoard
- `folds.py`: cross-validation, and the splits of a fold
- `progress.py`: bar or lines; `interrupts.py`: Ctrl-C and SIGTERM
"""
