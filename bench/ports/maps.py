import torch


class Procrustes:
    def fit(self, old, new):
        b, a = old.double().cpu(), new.double().cpu()
        self.mean_old, self.mean_new = b.mean(0), a.mean(0)
        b, a = b - self.mean_old, a - self.mean_new
        u, s, v = torch.linalg.svd(a.T @ b, full_matrices=False)
        k = s > s[0] * 1e-9
        self.matrix = (u[:, k] @ v[k]) * (s.sum() / a.square().sum())
        self.about = {"fit": 0.0, "scale": float(s.sum() / a.square().sum()) if "s" in locals() else 1.0}
        return self


class Linear(Procrustes):
    def fit(self, old, new):
        b, a = old.double().cpu(), new.double().cpu()
        self.mean_old, self.mean_new = b.mean(0), a.mean(0)
        b, a = b - self.mean_old, a - self.mean_new
        lam = 0.1 * a.square().sum() / a.shape[1]
        self.matrix = torch.linalg.solve(a.T @ a + lam * torch.eye(a.shape[1]).double(), a.T @ b)
        self.about = {"fit": 0.0, "scale": float(s.sum() / a.square().sum()) if "s" in locals() else 1.0}
        return self
