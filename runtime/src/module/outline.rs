//! Finds the sections of a module file, without looking into the code.

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds};

use super::{
    GRAPH_SECTION_PREFIX, GRAPHS_MAX, IMPORTS_MAX, MANIFEST_BYTES_MAX, MANIFEST_SECTION,
    ModuleError, SAMPLES_SECTION, SECTIONS_MAX, Section,
};

type Range = std::ops::Range<usize>;

/// Where things lie in a component.
#[derive(Default)]
pub(super) struct Outline {
    pub(super) manifest: Option<Range>,
    pub(super) graphs: Vec<(String, Range)>,
    pub(super) samples: Option<Range>,
    pub(super) imports: Vec<String>,
    pub(super) sections: Vec<Section>,
}

impl Outline {
    /// Reads the outermost sections of a component.
    pub(super) fn of(file: &[u8]) -> Result<Self, ModuleError> {
        let malformed = |source| ModuleError::Malformed { source };
        let mut outline = Self::default();
        // Modules and components inside the component have sections too, which are not ours.
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(file) {
            let payload = payload.map_err(malformed)?;
            match &payload {
                Payload::Version { encoding, .. } if depth == 0 => {
                    if *encoding == Encoding::Module {
                        return Err(ModuleError::CoreModule);
                    }
                    continue;
                }
                Payload::End(_) => {
                    depth = depth.saturating_sub(1);
                    continue;
                }
                _ if depth > 0 => {
                    if let Payload::ModuleSection { .. } | Payload::ComponentSection { .. } =
                        payload
                    {
                        depth += 1;
                    }
                    continue;
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::ComponentImportSection(imports) => {
                    for import in imports.clone() {
                        let import = import.map_err(malformed)?;
                        // A name for a type that is known anyway asks the host for nothing.
                        if let ComponentTypeRef::Type(TypeBounds::Eq(_)) = import.ty {
                            continue;
                        }
                        outline.imports.push(import.name.name.to_owned());
                        within(outline.imports.len(), IMPORTS_MAX, "imports")?;
                    }
                }
                Payload::CustomSection(section) => {
                    outline.custom(section.name(), section.data_offset(), section.data())?;
                }
                _ => {}
            }
            outline.list(&payload)?;
        }
        Ok(outline)
    }

    fn custom(&mut self, name: &str, start: usize, data: &[u8]) -> Result<(), ModuleError> {
        let range = start..start + data.len();
        let duplicate = || ModuleError::DuplicateSection {
            name: name.to_owned(),
        };
        if name == MANIFEST_SECTION {
            within(data.len(), MANIFEST_BYTES_MAX, "bytes of manifest")?;
            if self.manifest.replace(range).is_some() {
                return Err(duplicate());
            }
        } else if name == SAMPLES_SECTION {
            if self.samples.replace(range).is_some() {
                return Err(duplicate());
            }
        } else if let Some(graph) = name.strip_prefix(GRAPH_SECTION_PREFIX) {
            if self.graphs.iter().any(|(known, _)| known == graph) {
                return Err(duplicate());
            }
            self.graphs.push((graph.to_owned(), range));
            within(self.graphs.len(), GRAPHS_MAX, "graphs")?;
        }
        Ok(())
    }

    fn list(&mut self, payload: &Payload<'_>) -> Result<(), ModuleError> {
        let (name, range) = match payload {
            Payload::CustomSection(section) => (section.name(), section.range()),
            Payload::ModuleSection {
                unchecked_range, ..
            } => ("core module", unchecked_range.clone()),
            Payload::ComponentSection {
                unchecked_range, ..
            } => ("component", unchecked_range.clone()),
            Payload::ComponentImportSection(imports) => ("imports", imports.range()),
            Payload::ComponentExportSection(exports) => ("exports", exports.range()),
            other => match other.as_section() {
                Some((_, range)) => ("types and instances", range),
                None => return Ok(()),
            },
        };
        let name = name.to_owned();
        let bytes = range.len();
        self.sections.push(Section { name, bytes });
        within(self.sections.len(), SECTIONS_MAX, "sections")
    }
}

fn within(count: usize, limit: usize, what: &'static str) -> Result<(), ModuleError> {
    if count > limit {
        return Err(ModuleError::TooMany { what, limit });
    }
    Ok(())
}
