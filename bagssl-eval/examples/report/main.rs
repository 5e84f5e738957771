//! A report on made-up numbers, to look at its pages: `cargo run --example report -- FOLDER`.

mod sample;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("expected a folder")?;
    std::fs::create_dir_all(&folder)?;
    for path in sample::report().write(folder.as_ref())? {
        println!("{}", path.display());
    }
    Ok(())
}
