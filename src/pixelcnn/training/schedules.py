"""The learning rate and the weight of the EMA, as functions of the step."""

import math

from pixelcnn.params import Train


def learning_rate(settings: Train, step: int) -> float:
    """Linear warm-up to the peak, then the schedule, which reaches zero after the last step; steps count from 1.

    cosine: half a cosine. wsd: the peak until the end of the trunk, then 1 - sqrt of the share of the cool-down that is
    done, the best of the shapes in arXiv:2405.18392, section 3.
    """
    peak, start = settings.learning_rate, settings.trunk_steps or settings.warmup_steps
    if step <= settings.warmup_steps:
        return peak * step / settings.warmup_steps
    if step <= start:
        return peak
    done = (step - start) / (settings.steps + 1 - start)
    return peak * (1 - math.sqrt(done) if settings.trunk_steps else 0.5 * (1 + math.cos(math.pi * done)))


def ema_weight(decay: float, step: int) -> float:
    """The weight of the current parameters in the EMA: 1 - min(decay, (1 + step) / (10 + step)).

    The ramp forgets the random initial weights, which at a constant 0.9995 would still weigh 60% after 1,000 steps.
    """
    return 1 - min(decay, (1 + step) / (10 + step))
