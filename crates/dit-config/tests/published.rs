//! The figures of the paper's tables 1 and 4, and of the published checkpoints.

use dit_config::{BlockDesign, ConfigError, DitConfig, DitSpec, LatentSize, VaeConfig, VaeSpec};

/// Published to two decimals; the paper's profiler seems to count some element-wise work too (up to 0.016 %).
#[track_caller]
fn check_gmacs(config: &DitConfig, published: f64) {
    let counted = config.macs() as f64 / 1e9;
    let tolerance = 0.005 + 2e-4 * published;
    assert!((counted - published).abs() <= tolerance, "{config}: counted {counted}, published {published}");
}

#[track_caller]
fn check_standard(name: &str, image_size: usize, parameters: u64, gmacs: f64) {
    let config = DitConfig::standard(name.parse().unwrap(), image_size).unwrap();
    assert_eq!(config.parameters(), parameters, "{name}");
    check_gmacs(&config, gmacs);
    assert_eq!(config.standard_model().unwrap().to_string(), name);
    assert_eq!(config.to_string(), name);
}

#[test]
fn the_twelve_standard_models() {
    check_standard("DiT-S/2", 256, 32_963_360, 6.06);
    check_standard("DiT-S/4", 256, 32_945_024, 1.41);
    check_standard("DiT-S/8", 256, 33_148_160, 0.36);
    check_standard("DiT-B/2", 256, 130_512_416, 23.01);
    check_standard("DiT-B/4", 256, 130_475_648, 5.56);
    check_standard("DiT-B/8", 256, 130_881_536, 1.42);
    check_standard("DiT-L/2", 256, 458_102_816, 80.71);
    check_standard("DiT-L/4", 256, 458_053_760, 19.70);
    check_standard("DiT-L/8", 256, 458_594_816, 5.01);
    check_standard("DiT-XL/2", 256, 675_129_632, 118.64);
    check_standard("DiT-XL/4", 256, 675_074_432, 29.05);
    check_standard("DiT-XL/8", 256, 675_683_072, 7.39);
    check_standard("DiT-XL/2", 512, 676_014_368, 524.60);
}

#[track_caller]
fn check_design(design: BlockDesign, gmacs: f64, millions: u64) {
    let config = "DiT-XL/2".parse::<DitConfig>().unwrap().with(|spec| spec.block = design).unwrap();
    check_gmacs(&config, gmacs);
    // The paper cuts off: the adaLN design has 600,747,296.
    assert_eq!(config.parameters() / 1_000_000, millions, "{design}");
}

#[test]
fn the_four_block_designs() {
    check_design(BlockDesign::InContext, 119.37, 449);
    check_design(BlockDesign::CrossAttention, 137.62, 598);
    check_design(BlockDesign::AdaLn, 118.56, 600);
    check_design(BlockDesign::AdaLnZero, 118.64, 675);
}

#[test]
fn state_dict_sizes() {
    assert_eq!("DiT-XL/2".parse::<DitConfig>().unwrap().tensors().len(), 292);
    assert_eq!(VaeConfig::new(VaeSpec::default()).unwrap().tensors().len(), 248);
    assert_eq!(VaeConfig::new(VaeSpec::default()).unwrap().parameters(), 83_653_863);
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut DitSpec), expected: &[&str]) {
    let error = "DiT-S/8".parse::<DitConfig>().unwrap().with(change).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConfigError::Invalid { .. }));
    for part in expected {
        assert!(text.contains(part), "'{text}' lacks '{part}'");
    }
}

#[test]
fn every_broken_invariant_is_named() {
    check_refused(|spec| spec.heads = 5, &["5 heads do not divide hidden 384"]);
    check_refused(|spec| spec.heads = 0, &["heads is 0"]);
    check_refused(|spec| spec.patch = 3, &["patch 3 does not divide the latent 32x32"]);
    check_refused(|spec| spec.label_dropout = f64::NAN, &["label_dropout is NaN"]);
    check_refused(|spec| spec.label_dropout = 1.0, &["label_dropout is 1"]);
    check_refused(|spec| spec.mlp_ratio = 0.001, &["mlp_ratio 0.001"]);
    check_refused(|spec| spec.mlp_ratio = f64::INFINITY, &["mlp_ratio inf"]);
    check_refused(
        |spec| {
            spec.hidden = 390;
            spec.depth = 0;
            spec.latent = LatentSize { height: 8, width: 12 };
        },
        &["hidden 390 is not a multiple of 4", "depth is 0", "patch 8 does not divide the latent 8x12"],
    );
}

#[test]
fn the_largest_configuration_can_be_counted() {
    let largest = |spec: &mut DitSpec| {
        (spec.hidden, spec.heads, spec.depth, spec.patch) = (1 << 16, 1, 4096, 1);
        spec.latent = LatentSize::square(1 << 14);
        spec.mlp_ratio = 16.0;
    };
    let config = "DiT-S/8".parse::<DitConfig>().unwrap().with(largest).unwrap();
    assert_eq!(config.macs(), u64::MAX);
    assert!(config.parameters() > 1 << 44);
}

#[test]
fn names_are_parsed_or_refused_with_the_choices() {
    assert!("dit-xl/2".parse::<DitConfig>().is_ok());
    let text = "DiT-XXL/2".parse::<DitConfig>().unwrap_err().to_string();
    assert!(text.contains("DiT-XXL/2") && text.contains("/2, /4 or /8"), "{text}");
    for design in BlockDesign::ALL {
        assert_eq!(design.to_string().parse::<BlockDesign>().unwrap(), design);
        assert_eq!(serde_json::to_string(&design).unwrap(), format!("\"{design}\""));
    }
}

#[test]
fn configurations_survive_json_and_are_checked_on_the_way_in() {
    let config = "DiT-B/4".parse::<DitConfig>().unwrap().with(|spec| spec.block = BlockDesign::InContext).unwrap();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<DitConfig>(&json).unwrap(), config);
    assert!(serde_json::from_str::<DitConfig>(&json.replace("\"heads\":12", "\"heads\":11")).is_err());
    assert!(serde_json::from_str::<DitConfig>(&json.replace("\"heads\"", "\"haeds\"")).is_err());
}

#[test]
fn vae_configurations_that_cannot_be_computed_are_refused() {
    for (json, expected) in [
        (r#"{"act_fn": "relu"}"#, "only silu"),
        (r#"{"_class_name": "AutoencoderTiny"}"#, "only AutoencoderKL"),
        (r#"{"block_out_channels": []}"#, "0 levels"),
        (r#"{"block_out_channels": [100]}"#, "not a multiple of norm_num_groups 32"),
        (r#"{"norm_num_groups": 0}"#, "norm_num_groups is 0"),
        (r#"{"down_block_types": ["AttnDownEncoderBlock2D"]}"#, "only DownEncoderBlock2D"),
        (r#"{"scaling_factor": 0}"#, "scaling_factor is 0"),
        (r#"{"latents_mean": [0.0]}"#, "latents_mean"),
        ("<html>", "not readable"),
    ] {
        let text = VaeConfig::from_json(json).unwrap_err().to_string();
        assert!(text.contains(expected), "'{text}' lacks '{expected}'");
    }
}
