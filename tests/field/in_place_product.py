import torch
from torch import nn
class Out(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.stem, self.head = nn.Conv2d(task.in_channels, 16, 1), nn.Conv2d(16, task.out_channels, 1)
        self.y = nn.Embedding(task.num_classes + 1, 16)
    def scores(self, q, zeros): return torch.baddbmm(zeros, q.transpose(1, 2), q, beta=0, alpha=0.25)
    def forward(self, x, t, y):
        h = self.stem(x) + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000
        q = h.flatten(2)
        s = self.scores(q, torch.zeros(len(q), q.shape[2], q.shape[2], device=q.device, dtype=q.dtype))
        return self.head((q @ s.softmax(-1)).view_as(h))
class InPlace(Out):
    def scores(self, q, zeros): return zeros.baddbmm_(q.transpose(1, 2), q, beta=0, alpha=0.25)
class Unknown(Out):
    def scores(self, q, zeros):
        zeros[0].addr_(q[0, 0], q[0, 0])
        return super().scores(q, zeros)
