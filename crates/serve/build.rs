//! The console is embedded from `ui/dist`; without it the program builds all the same and says so on its page.

fn main() {
    let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist");
    if !dist.exists() {
        std::fs::create_dir_all(&dist).expect("ui/dist can be made beside the sources");
    }
    println!("cargo::rerun-if-changed={}", dist.display());
}
