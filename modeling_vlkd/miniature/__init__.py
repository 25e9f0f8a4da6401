"""Run the whole method in minutes, on easy-VQA: tiny teachers and their training, the demo, its scores and its card.

May import every room but the commands: model, publishing, evaluation, trainers and conversion.
"""
