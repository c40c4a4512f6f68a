"""The page's tabs, one module each: ``build`` lays a tab out within its ``gr.Tab`` and wires it up."""
