"""The learning rate and the weight of the EMA, as functions of the step."""

import math

from pixelcnn.params import Train


def learning_rate(settings: Train, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine that reaches zero after the last step; steps count from 1."""
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    done = (step - settings.warmup_steps) / (settings.steps + 1 - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def ema_weight(decay: float, step: int) -> float:
    """The weight of the current parameters in the EMA: 1 - min(decay, (1 + step) / (10 + step)).

    The ramp forgets the random initial weights, which at a constant 0.9995 would still weigh 60% after 1,000 steps.
    """
    return 1 - min(decay, (1 + step) / (10 + step))
