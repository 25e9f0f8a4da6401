"""The teacher of the texts: the text tower of the CLIP whose vision tower is distilled, frozen."""

from modeling_vlkd.evaluation.clip_texts import CLIPTextTower


class TextTeacher(CLIPTextTower):
    """The text tower of the CLIP whose vision tower is distilled; the arguments are those of [`CLIPTextTower`]."""
