# Ray's GPU image with this project and its dependencies, for Kubernetes (rayjob.yaml) or any other cluster.
#
#   docker build -t REGISTRY/wsss-ray:0.1.0 .                                  with the published weights (3 GB)
#   docker build -t REGISTRY/wsss-ray:0.1.0-bare --build-arg WEIGHTS=none .    weights are fetched by URI at run time
FROM rayproject/ray:2.60.0-py311-gpu

WORKDIR /home/ray/wsss_ray

# Dependencies first, because they change less often than the code; torch before the others, as in the Makefile.
COPY --chown=ray:users pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && pip install --no-cache-dir -c constraints.txt torch torchvision \
    && pip install --no-cache-dir -c constraints.txt -r requirements.txt

# Weights: `published` stores those that the configurations coco and voc name, checked by digest; `none` stores none.
ARG WEIGHTS=published
ARG SAM_URL=https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth
ARG SAM_SHA256=a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e
ARG DETECTOR=IDEA-Research/grounding-dino-tiny
ARG DETECTOR_COMMIT=a2bb814dd30d776dcf7e30523b00659f4f141c71
RUN case "$WEIGHTS" in \
        none) ;; \
        published) \
            mkdir -p /home/ray/weights && cd /home/ray/weights \
            && curl --fail --location --silent --show-error --output "${SAM_URL##*/}" "$SAM_URL" \
            && echo "$SAM_SHA256  ${SAM_URL##*/}" | sha256sum --check \
            && hf download "$DETECTOR" --revision "$DETECTOR_COMMIT" --local-dir "${DETECTOR##*/}" \
                --include '*.json' --include '*.txt' --include 'model.safetensors' ;; \
        *) echo "WEIGHTS is '$WEIGHTS': published or none" >&2; exit 1 ;; \
    esac

COPY --chown=ray:users README.md LICENSE ./
COPY --chown=ray:users wsss_ray wsss_ray
COPY --chown=ray:users jobs jobs
RUN pip install --no-cache-dir --no-deps .
