"""DiffPure and AVATAR: noise is mixed into pictures, and a diffusion model removes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from miue import data
from miue.core.errors import UserError
from miue.core.files import digest, file_digest, tensor_digest
from miue.core.method import Facts, at_least
from miue.core.run import Run
from miue.core.types import ImageSet
from miue.training.loop import Training

TIMES = 1000  # number of diffusion times, from the picture to pure noise
PART = 256  # pictures processed at once
GROUPS = 8  # groups of channels that are normalised together; widths are multiples of it


class Denoiser(nn.Module):
    """A U-Net of diffusers for pictures of any size: pictures are padded to a size that it can halve."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.grid = 2 ** (len(unet.config.block_out_channels) - 1)
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def forward(self, z: Float[Tensor, "b c h w"], times: Int[Tensor, "b"]) -> Float[Tensor, "b o h w"]:
        height, width = z.shape[2:]
        z = F.pad(z, (0, -width % self.grid, 0, -height % self.grid), mode="replicate")
        with self.autocast():
            noise = self.unet(z, times).sample
        return noise.float()[..., :height, :width]


@dataclass(frozen=True, kw_only=True)
class DiffPure:
    """Mix noise into every picture up to a time of the diffusion, and let a diffusion model take the noise out again.

    z = sqrt(a) (2x - 1) + sqrt(1 - a) noise with a = prod(1 - beta) up to `time` of 1,000; then `steps` ancestral steps
    back to 0, evenly spaced. Both sources go to 100 and back in 100 steps. model: folder of a model for diffusers
    (`unet` and `scheduler`, or one U-Net), best one trained on other, clean pictures; nothing is downloaded. Without
    one a U-Net of `width` channels is trained, up to `time` alone. clean: pictures to train it on, as for `--clean`;
    split: of them. Without these it learns from the training pictures themselves: it has seen the perturbations and
    may draw them again. epochs, batch, lr: of that training, Adam with a cosine rate. Slow without a GPU: `steps`
    networks a picture.
    """

    model: str = ""
    clean: str = ""
    split: str | None = None
    time: int = 100
    steps: int = 100
    width: int = 64
    epochs: int = 60
    batch: int = 128
    lr: float = 5e-4
    content: str = field(init=False, default="")
    """Digest of the model or of the clean pictures: others under the same name are another defense."""

    slot: ClassVar[Literal["purify"]] = "purify"
    facts: ClassVar[Facts] = Facts(
        name="diffpure",
        year=2022,
        reference="Nie et al., ICML 2022, arXiv 2205.07460; on unlearnable pictures: AVATAR, Dolatabadi et al., "
        "arXiv 2303.08500",
    )

    def __post_init__(self) -> None:
        at_least(self, time=1, steps=1, width=1, epochs=1, batch=1)
        if self.time > TIMES or self.steps > self.time or self.width % GROUPS or not self.lr > 0:
            raise UserError(
                f"diffpure: time={self.time}, steps={self.steps}, width={self.width}, lr={self.lr:g}: at most {TIMES}, "
                f"at most the time, a multiple of {GROUPS}, positive"
            )
        if (self.model and self.clean) or (self.split and not self.clean):
            raise UserError(
                f"diffpure: model={self.model!r}, clean={self.clean!r}, split={self.split!r}: give a model, or "
                "pictures to train one on, or neither; a split needs pictures"
            )
        if find_spec("diffusers") is None:
            raise UserError('diffpure needs diffusers; pip install "miue[defenses]" adds it')
        if self.model:
            folder = Path(self.model)
            if not _config(folder):
                raise UserError(
                    f"diffpure: {self.model!r} is no folder of a diffusion model: neither config.json nor "
                    "unet/config.json is in it; give model=FOLDER, as save_pretrained of diffusers writes it"
                )
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            object.__setattr__(self, "content", digest(*map(file_digest, files)))
        elif self.clean:
            object.__setattr__(self, "content", data.scan(self.clean, split=self.split, canvas=0).digest)

    def __call__(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], run: Run) -> Float[Tensor, "n c h w"]:
        schedule = self.schedule()
        if self.model:
            net = self.read(x.shape[1], run)
        else:
            clean = self._clean(x.shape[2], grey=x.shape[1] == 1) if self.clean else None
            net = self.trained(clean.images.float().div_(255) if clean else x, schedule, run)
        return self.drawn(net, schedule, x, run)

    def pictures(self, train: ImageSet) -> ImageSet | None:
        """The pictures to train on, if there are some beside the training set, at its size."""
        return self._clean(train.shape[1], grey=train.shape[0] == 1) if self.clean else None

    def _clean(self, side: int, grey: bool) -> ImageSet:
        return data.read(data.scan(self.clean, split=self.split, canvas=side), side, grey=grey)

    def schedule(self) -> Any:
        """Noise schedule: the model's own, or the linear one of the sources."""
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # here: an extra, and it takes seconds to import

        for folder in (Path(self.model), Path(self.model) / "scheduler") if self.model else ():
            if (folder / "scheduler_config.json").is_file():
                scheduler: Any = DDPMScheduler.from_pretrained(folder)
                if scheduler.config.num_train_timesteps < self.time:
                    raise UserError(
                        f"diffpure: time={self.time} is beyond the {scheduler.config.num_train_timesteps} of {folder}"
                    )
                return scheduler
        return DDPMScheduler(num_train_timesteps=TIMES, beta_schedule="linear")

    def read(self, channels: int, run: Run) -> Denoiser:
        """The model in the folder."""
        from diffusers.models.unets.unet_2d import UNet2DModel

        folder = _config(Path(self.model))
        try:
            unet: Any = UNet2DModel.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
        except (OSError, ValueError, RuntimeError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"diffpure: the model in {folder} cannot be read: {why}") from None
        if {unet.config.in_channels, unet.config.out_channels} != {channels}:
            raise UserError(
                f"diffpure: the model in {folder} takes {unet.config.in_channels} channels and gives "
                f"{unet.config.out_channels}; these pictures have {channels}"
            )
        return run.place(Denoiser(unet)).eval()

    def trained(self, x: Float[Tensor, "n c h w"], schedule: Any, run: Run) -> Denoiser:
        """A model fitted to these pictures. Resumes after the last finished epoch if `run` keeps state."""
        from diffusers.models.unets.unet_2d import UNet2DModel

        channels, height, width = x.shape[1:]
        with run.seeded("diffpure"):
            unet = UNet2DModel(
                sample_size=(height, width),
                in_channels=channels,
                out_channels=channels,
                block_out_channels=(self.width, 2 * self.width, 2 * self.width),
                down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
                norm_num_groups=GROUPS,
            )
            net = run.place(Denoiser(unet)).train()
        optimizer = torch.optim.Adam(net.parameters(), self.lr)
        identity = {"diffpure": repr(self), "pictures": tensor_digest(x), "seed": run.seed}
        training = Training(net, optimizer, run, "diffusion model", "diffpure", identity)
        count = -(-len(x) // self.batch)

        def noisy(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            generator = run.rng("diffpure", epoch)
            for rows in torch.randperm(len(x), generator=generator).tensor_split(count):
                times = torch.randint(self.time, (len(rows),), generator=generator)
                noise = torch.randn(x[rows].shape, generator=generator)
                z = schedule.add_noise(2 * x[rows] - 1, noise, times)
                yield run.put(z), run.put(times), run.put(noise)

        def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            z, times, noise = batch
            return F.mse_loss(net(z, times), noise)

        for epoch in training.epochs(self.epochs, count):
            training.learn(loss, noisy(epoch))
        return net.eval()

    @torch.no_grad()
    def drawn(self, net: nn.Module, schedule: Any, x: Float[Tensor, "n c h w"], run: Run) -> Float[Tensor, "n c h w"]:
        """Purified pictures, in main memory: noise is added and removed again."""
        purified, parts = torch.empty_like(x), torch.arange(len(x)).split(PART)
        times = [self.time - 1 - i * (self.time - 1) // max(self.steps - 1, 1) for i in range(self.steps)]
        schedule.set_timesteps(timesteps=times)
        back = schedule.step
        with run.progress("pictures redrawn", len(parts) * len(times)) as tick:
            for number, rows in enumerate(parts):
                generator = run.rng("diffpure", "drawn", number)
                noise = torch.randn(x[rows].shape, generator=generator)
                z = run.put(schedule.add_noise(2 * x[rows] - 1, noise, torch.full((len(rows),), times[0])))
                for time in times:
                    guess = net(z, torch.full((len(rows),), time, device=z.device))
                    z = back(guess, time, z, generator=generator).prev_sample
                    tick()
                purified[rows] = ((z + 1) / 2).clamp(0, 1).to(x.device)
        return purified


def _config(folder: Path) -> Path | None:
    """Path of the U-Net in a folder of diffusers."""
    return next((f for f in (folder / "unet", folder) if (f / "config.json").is_file()), None)
