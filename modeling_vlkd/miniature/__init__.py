"""Run the whole method in minutes, on easy-VQA: tiny teachers and their training, the demo, its scores and its card.

May import the model, publishing, evaluation, trainers and conversion.
"""
