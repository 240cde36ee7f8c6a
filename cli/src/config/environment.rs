//! `NIX_CONFIG`: lines of Nix's configuration file in the environment.

use super::Config;

/// Merges the lines in. As with Nix, what is not understood is a warning.
pub fn merge(config: &mut Config, text: &str) {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        if let Some((name, value)) = line.split_once('=') {
            config.set_as_nix(name.trim(), value.trim());
        } else if !line.trim().is_empty() {
            eprintln!("warning: NIX_CONFIG: '{}' has no '='", line.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_set_settings() {
        let mut config = Config::default();
        merge(
            &mut config,
            "substituters = # none\n\nmax-jobs = 7\nsystem = a-b\nextra-trusted-public-keys = k:1",
        );
        assert!(config.substituters.is_empty());
        assert_eq!(config.max_jobs, 7);
        assert_eq!(config.evaluation, [("system".to_string(), "a-b".to_string())]);
        assert_eq!(config.trusted_public_keys.len(), 2);
    }
}
