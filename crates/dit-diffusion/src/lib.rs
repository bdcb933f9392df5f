//! Gaussian diffusion: schedules, losses, guidance, samplers. Knows no network.
